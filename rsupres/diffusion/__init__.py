"""Schedules, samplers, preconditioning and the noise field of diffusion models.

Networks are in `rsupres.families`; samplers call them through
`rsupres.diffusion.denoiser`.
"""
