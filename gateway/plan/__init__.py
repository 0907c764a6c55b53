"""Emergency plans (应急预案) as data: what makes which level, which siren sounds, how it ends."""
