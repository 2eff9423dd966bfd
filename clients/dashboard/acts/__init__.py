"""What a person may do from a page: every act is on the trace as a person's."""
