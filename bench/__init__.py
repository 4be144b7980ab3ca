"""What the bridge can do, measured: `make bench`. Ratios within one run, because machines and their neighbours differ."""
