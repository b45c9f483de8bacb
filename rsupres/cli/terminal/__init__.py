"""Talk with the terminal: results, logs, progress, log files, wording of errors."""
