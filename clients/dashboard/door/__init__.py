"""The dashboard's door: who is let in, from where, how often, and what a browser may do with the pages."""
