"""One file a command of ``janus-r1``. Imported when its command runs: ``cli`` itself stays light."""
