"""The rim of souk: settings, Postgres, sources, landing, gates, releases and the ``souk`` command."""
