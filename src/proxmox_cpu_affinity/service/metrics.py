"""Figures for Prometheus, made when they are asked for."""

from proxmox_cpu_affinity.service.app import Service


def exposition(service: Service) -> str:
    del service
    return ""
