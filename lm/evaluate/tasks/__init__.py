"""Tasks of the synthetic corpora: draw cases, check a model's answers, and report success rates with intervals."""

from lm.evaluate.tasks.cases import TASKS, Case, Task
from lm.evaluate.tasks.scoring import PROCEDURES, Rate, score_task, wilson_interval

__all__ = ["PROCEDURES", "TASKS", "Case", "Rate", "Task", "score_task", "wilson_interval"]
