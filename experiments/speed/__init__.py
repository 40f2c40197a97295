"""Studies of speed. Free of imports: foreign interpreters load it, too."""
