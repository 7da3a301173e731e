"""`python -m fedbus.training --socket NUMBER`: the trainer process of a site daemon.

What a task logs goes to stderr, which is the site's log: of `fedbus` all from info on, of others from warning on.
"""

import gc
import logging

gc.disable()  # what the import of torch makes stays: to look through it for garbage takes a seventh of that time
from fedbus.training.process import main  # noqa: E402

gc.enable()
gc.freeze()

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("fedbus").setLevel(logging.INFO)

raise SystemExit(main())
