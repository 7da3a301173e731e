"""Log lines of the bus do not belong between the cells of a notebook; errors are raised there."""

from __future__ import annotations

import logging

import structlog


def be_quiet() -> None:
    """Keep log lines below errors back, unless the program has set up its logging itself."""
    if not structlog.is_configured():
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name in ("aiormq", "aio_pika"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)  # a refusal is raised in words of ours
