"""What both daemons stand on: configuration, log, web, exposition, lifecycle."""
