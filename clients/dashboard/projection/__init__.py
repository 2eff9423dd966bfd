"""Pure folds from events and listed resources to what the pages show. No I/O, no NiceGUI."""
