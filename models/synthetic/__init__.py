"""Models in which nothing was trained: tiny random ones, full-size ones without weights, exact ones."""
