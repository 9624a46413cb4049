"""Which file of a source tree uses which, and what is wrong with that: circles, and arrows against an order."""
