"""What reads the rows of several questions together: figures, and claims."""
