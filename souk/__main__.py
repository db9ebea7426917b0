"""`python -m souk`."""

from souk.cli import main

raise SystemExit(main())
