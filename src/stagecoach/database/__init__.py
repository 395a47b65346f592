"""The memory: SQLAlchemy speaks here and nowhere else. One code for SQLite and PostgreSQL."""
