"""The command line: from the words typed to the module that does the work, and to an exit status."""
