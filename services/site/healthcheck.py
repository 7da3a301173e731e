"""`python -m services.site.healthcheck`, with the site's settings; see `services.healthcheck`."""

from fedbus.site.settings import SiteSettings
from services.healthcheck import answer


def _url() -> str:
    settings = SiteSettings.load()
    return settings.url_for(settings.site_name)


answer(_url)
