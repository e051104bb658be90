"""What a model of a made-up language can do: cases to answer, a judge, and rates with their uncertainty."""

from lm.evaluate.tasks.cases import TASKS, Case, Task
from lm.evaluate.tasks.scoring import PROCEDURES, Rate, score_task, wilson

__all__ = ["PROCEDURES", "TASKS", "Case", "Rate", "Task", "score_task", "wilson"]
