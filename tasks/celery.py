"""The Celery application of `celery -A tasks ...` and `-A workers`. Any package may import it.

Its configuration is `celeryconfig.py`, read when it is first needed.
"""

from celery import Celery

app = Celery("embedmill", amqp="tasks.admission:AdmittingAMQP")
app.config_from_object("celeryconfig")
