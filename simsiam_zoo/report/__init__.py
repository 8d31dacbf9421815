"""What a reader gets: the page of a run, the report of a study, features in a file."""
