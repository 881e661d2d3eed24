"""Who sits where: from the names of sites to modules, and the hooks on them."""
