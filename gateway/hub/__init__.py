"""The city's side of the link: what a hub needs to hear stations and to be heard by them."""
