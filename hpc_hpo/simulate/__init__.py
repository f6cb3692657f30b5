"""The steering loop over a modelled site and a virtual clock."""
