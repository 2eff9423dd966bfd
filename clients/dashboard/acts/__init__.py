"""What a person may do from a page, and whether they may: every act is on the trace as a person's."""
