"""The questions, in the order in which they are asked: each uses what those before it have left."""

from dask_starburst.verify.model import Question
from dask_starburst.verify.questions import capacity, lease, run_task, start

QUESTIONS: tuple[Question, ...] = (*start.QUESTIONS, *run_task.QUESTIONS, *capacity.QUESTIONS, *lease.QUESTIONS)
