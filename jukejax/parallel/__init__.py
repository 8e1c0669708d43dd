"""Devices and processes: the mesh and its two sharding tables, gathering, several processes."""
