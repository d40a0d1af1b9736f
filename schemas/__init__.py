"""Curated, tagged TFMD schemas: one folder per dataset."""
