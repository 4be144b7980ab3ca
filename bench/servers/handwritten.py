"""What one would write without a bridge: FastAPI, Stripe's SDK to check the signature, Inngest's to send the event.

Nothing is durable: what is answered 200 was sent, but whatever fails before is the provider's to repeat. That is its best
case; to store webhooks first would cost it more.
"""

from __future__ import annotations

import logging
import sys

import inngest
import stripe
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

from bench import bodies

app = FastAPI()
client = inngest.Inngest(
    app_id="bench",
    event_key="key",
    event_api_base_url=sys.argv[2] if len(sys.argv) > 2 else None,  # noqa: PLR2004 - the URL
    is_production=True,
    logger=logging.getLogger("bench"),
)


@app.post("/webhooks/stripe")
async def take(request: Request) -> Response:
    body = await request.body()
    try:
        event = stripe.Webhook.construct_event(body, request.headers["stripe-signature"], bodies.SECRET.decode())
    except (ValueError, KeyError, stripe.SignatureVerificationError):
        raise HTTPException(401) from None
    await client.send(inngest.Event(name=f"stripe/{event.type}", id=event.id, data=event.to_dict()))
    return Response()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
