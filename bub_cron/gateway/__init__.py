"""The side that runs inside the gateway. Never imports the trigger side."""
