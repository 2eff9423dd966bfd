CREATE DATABASE outer_loop;
