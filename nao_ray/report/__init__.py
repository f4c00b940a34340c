"""Pool in, tables, figures and HTML out."""
