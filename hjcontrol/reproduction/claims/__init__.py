"""One file a claim. Each ends in `CLAIM`; `hjcontrol.reproduction.registry` holds their order."""
