"""Plumbing shared by the services. It knows nothing about tickets."""
