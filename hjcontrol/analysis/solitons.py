"""solitons"""
