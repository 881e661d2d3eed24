"""Where three concepts are in a picture."""

from concept_attention import ConceptAttentionFluxPipeline


def start(source, task):
    return ConceptAttentionFluxPipeline(model_name="flux-schnell", device="cuda:0")


def work(pipeline, task):
    made = pipeline.generate_image(prompt=task.prompt, concepts=task.concepts, width=1024, height=1024)
    return made.concept_heatmaps
