"""Compositions of several families: what each gains over its parts."""
