"""A budget of processor time that means the same on a slow and on a busy machine."""

#: Defines ``pieces_of_work``; run inside the process that is measured.
YARDSTICK = '''
def pieces_of_work():
    """Return this process's time so far, in times that a fixed piece of work takes here and now."""
    import time
    spent = time.process_time()
    for _ in range(3):
        sorted(map(str, range(100_000)))
    return 3 * spent / (time.process_time() - spent)
'''
