"""Expected refusals."""

from libs.web.problems import Problem


class EmailTaken(Problem):
    """An account with this e-mail address exists, whatever the case of its letters."""

    code = "email_taken"
    status = 409
    cure = "Log in instead, or use another address."


class InvalidCredentials(Problem):
    """No such account, a wrong password, or an account that was disabled: the answer does not tell which."""

    code = "invalid_credentials"
    status = 401
    cure = "Check both. After many tries, wait as `Retry-After` says."

    def __init__(self) -> None:
        super().__init__("Invalid email or password", headers={"WWW-Authenticate": "Bearer"})


class InvalidRefreshToken(Problem):
    """The refresh token is unknown, expired, revoked or was used before. Log in again."""

    code = "invalid_refresh_token"
    status = 401
    cure = (
        "Log in again. If the token was used twice, somebody else may have it: the whole session has ended."
    )

    def __init__(self) -> None:
        super().__init__(
            "The refresh token is not valid any more. Log in again.", headers={"WWW-Authenticate": "Bearer"}
        )


class WrongPassword(Problem):
    """The current password, asked for once more before a change, is not right."""

    code = "wrong_password"
    status = 403
    cure = "Ask the user for the current password again."
