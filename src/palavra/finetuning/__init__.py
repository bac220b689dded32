"""Fine-tuning: from labelled examples to a model directory."""
