"""Detection: packets and readings in; onsets, shaking and levels out."""

from gateway.detect.seismic import SeismicDetector as SeismicDetector
