"""Why-not search and uploads: what happened to it, and another way in."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dicom_node.api.security import DeskDep, Operator, Viewer
from dicom_node.operations import delivery_summary
from dicom_node.web.asked import Asked
from dicom_node.web.frame import PageRoute, render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)


@router.get("/why")
def why_page(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """Type any UID or accession number and read what happened to it."""
    text = Asked(request.query_params).text("text")
    found = None if text is None else desk.why_not.ask(text)
    counts = [] if found is None else [delivery_summary(answer.story.deliveries) for answer in found.answers]
    return render(request, "why.html", caller, text=text or "", found=found, counts=counts)


@router.get("/upload")
def upload_page(request: Request, desk: DeskDep, caller: Operator) -> HTMLResponse:
    """Drop a folder or a ZIP file of DICOM, and it goes through the line."""
    quiet = desk.settings.completion.quiet_period.total_seconds()
    return render(request, "upload.html", caller, limit=desk.uploads.limit, quiet=quiet)
