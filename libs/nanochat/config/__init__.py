"""The whole run as typed data: recipe, model shape, scaling rules and the shipped recipes. Imports no torch."""
