"""`python -m fedbus.training --socket NUMBER`: the trainer process of a site daemon.

What a task logs goes to stderr, which is the site's log: of `fedbus` all from info on, of others from warning on.
"""

import logging

from fedbus.training.process import main

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("fedbus").setLevel(logging.INFO)

raise SystemExit(main())
