"""`python -m fedbus.training --socket PATH`: the trainer process of a site daemon."""

from fedbus.training.process import main

raise SystemExit(main())
