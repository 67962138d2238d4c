"""Okabe and Ito's palette, which the colour-blind can tell apart."""

BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY_BLUE = "#56B4E9"
ORANGE = "#E69F00"
BLACK = "#000000"

OKABE_ITO = (BLUE, VERMILION, GREEN, PURPLE, SKY_BLUE, ORANGE, BLACK)  # in the order in which charts take them
GREY = "#555555"  # what stands beside the palette: small print, lines at zero
