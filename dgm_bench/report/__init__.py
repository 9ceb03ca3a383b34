"""Tables, plots and pages, made only from declarations and records."""
