"""Pictures that nodes show: charts, plots, sheets. Knows no host."""
