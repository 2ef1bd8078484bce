"""One file a claim. Each ends in `CLAIM`; `hjcontrol.ledger.registry` holds their order."""
