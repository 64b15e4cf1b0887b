"""promote: a packaged version becomes champion, which servers follow."""

from typing import Annotated, Any

from zenml import step

from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import log_promotion, tracking_uri


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY)
def promote(
    registration: dict[str, Any], bento: dict[str, Any], evaluation: dict[str, Any]
) -> Annotated[dict[str, Any], "promotion"]:
    """Move the alias to the version that has a Bento; one without stays what `register` made it.

    Raises:
        InputError: another champion by now than the evaluation compared with.
    """
    from metalayer.serving import promotion, registry

    if bento["tag"] is None:
        return {"alias": registration["alias"], "instead_of": None}
    compared_with = (evaluation["champion"] or {}).get("version")
    move = promotion.promote(
        registration["name"],
        registration["version"],
        tracking_uri(),
        bento=bento["tag"],
        instead_of=[compared_with],
    )
    log_promotion()
    return {"alias": registry.CHAMPION, "instead_of": move.instead_of}
